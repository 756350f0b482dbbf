import java.awt.AlphaComposite;
import java.awt.Color;
import java.awt.Graphics2D;
import java.awt.geom.Path2D;
import java.awt.image.BufferedImage;
import java.awt.image.ColorModel;
import java.awt.image.DataBuffer;
import java.awt.image.IndexColorModel;
import java.awt.image.Raster;
import java.awt.image.SampleModel;
import java.awt.image.WritableRaster;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.Random;
import javax.imageio.ImageIO;

/**
 * Plays QuPath 0.4 with the Cellsparse extension 0.2.0, and QuPath 0.6 with the SAM extension 0.9.1.
 *
 * It has their colour models, the Java runtime's PNG writer and their HTTP settings. Commands:
 * fixtures FOLDER SIZE; segment URL IMAGE LABELS TRAIN STEPS ANSWER; post URL BODY ANSWER; get URL ANSWER;
 * paint SHAPES WIDTH HEIGHT LABELS.
 */
public class QuPathClient {
    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "fixtures" -> fixtures(Path.of(arguments[1]), Integer.parseInt(arguments[2]));
            case "segment" -> segment(arguments);
            case "post" -> post(arguments[1], Files.readString(Path.of(arguments[2])), Path.of(arguments[3]));
            case "get" -> get(arguments[1], Path.of(arguments[2]));
            case "paint" -> paint(arguments);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    /** The colour model of QuPath 0.4 for images that are not RGB: it claims alpha whatever the number of channels. */
    static class ClaimsAlpha extends ColorModel {
        ClaimsAlpha(int bits) {
            super(bits);
        }

        @Override
        public int getRed(int pixel) {
            return 0;
        }

        @Override
        public int getGreen(int pixel) {
            return 0;
        }

        @Override
        public int getBlue(int pixel) {
            return 0;
        }

        @Override
        public int getAlpha(int pixel) {
            return 0;
        }

        @Override
        public boolean isCompatibleRaster(Raster raster) {
            return true;
        }

        @Override
        public boolean isCompatibleSampleModel(SampleModel model) {
            return true;
        }
    }

    /** Writes the texts that QuPath sends: an image of bright discs in every colour model, and its labels. */
    static void fixtures(Path folder, int size) throws IOException {
        int[][][] values = new int[4][size][size];
        BufferedImage labels = new BufferedImage(size, size, BufferedImage.TYPE_BYTE_INDEXED, palette());
        draw(values, labels.getRaster(), size);
        write(folder, "grey8", plain(BufferedImage.TYPE_BYTE_GRAY, values, 1, 1));
        write(folder, "grey16", plain(BufferedImage.TYPE_USHORT_GRAY, values, 1, 200));
        write(folder, "rgb", plain(BufferedImage.TYPE_INT_RGB, values, 3, 1));
        write(folder, "argb", plain(BufferedImage.TYPE_INT_ARGB, values, 3, 1));
        for (int channels = 1; channels <= 5; channels++) {
            write(folder, "channels" + channels + "x8", claimed(DataBuffer.TYPE_BYTE, values, channels, 1));
            write(folder, "channels" + channels + "x16", claimed(DataBuffer.TYPE_USHORT, values, channels, 200));
        }
        write(folder, "labels", labels);
        for (int x = 0; x < size; x++)
            for (int y = 0; y < size; y++)
                if (labels.getRaster().getSample(x, y, 0) > 1)
                    labels.getRaster().setSample(x, y, 0, 0);
        write(folder, "noforeground", labels);
    }

    /** Draws four discs; two of them are labelled, and a stripe of background above. */
    static void draw(int[][][] values, WritableRaster labels, int size) {
        Random random = new Random(1);
        for (int y = 0; y < size; y++)
            for (int x = 0; x < size; x++) {
                int disc = 0;
                for (int number = 1; number <= 4; number++) {
                    double dx = x - size * (number % 2 == 0 ? 0.75 : 0.25), dy = y - size * (number > 2 ? 0.75 : 0.25);
                    if (dx * dx + dy * dy < size * size / 49.0)
                        disc = number;
                }
                for (int channel = 0; channel < 4; channel++)
                    values[channel][y][x] = (disc > 0 ? 120 + 20 * disc : 20) + 7 * channel + random.nextInt(15);
                labels.setSample(x, y, 0, disc > 0 && disc <= 2 ? disc + 1 : disc == 0 && y < size / 2 ? 1 : 0);
            }
    }

    /** A palette whose colours have nothing to do with the labels, as those of QuPath's classes. */
    static IndexColorModel palette() {
        byte[] red = new byte[256], green = new byte[256], blue = new byte[256];
        new Random(2).nextBytes(red);
        new Random(3).nextBytes(green);
        new Random(4).nextBytes(blue);
        return new IndexColorModel(8, 256, red, green, blue);
    }

    static BufferedImage plain(int type, int[][][] values, int channels, int factor) {
        int size = values[0].length;
        BufferedImage image = new BufferedImage(size, size, type);
        for (int y = 0; y < size; y++)
            for (int x = 0; x < size; x++)
                if (channels == 1)
                    image.getRaster().setSample(x, y, 0, values[0][y][x] * factor);
                else
                    image.setRGB(x, y, 0xff000000 | values[0][y][x] << 16 | values[1][y][x] << 8 | values[2][y][x]);
        return image;
    }

    static BufferedImage claimed(int type, int[][][] values, int channels, int factor) {
        int size = values[0].length;
        WritableRaster raster = WritableRaster.createBandedRaster(type, size, size, channels, null);
        for (int channel = 0; channel < channels; channel++)
            for (int y = 0; y < size; y++)
                for (int x = 0; x < size; x++)
                    raster.setSample(x, y, channel, values[channel % 4][y][x] * factor);
        return new BufferedImage(new ClaimsAlpha(DataBuffer.getDataTypeSize(type) * channels), raster, false, null);
    }

    static void write(Path folder, String name, BufferedImage image) throws IOException {
        ByteArrayOutputStream file = new ByteArrayOutputStream();
        ImageIO.write(image, "png", file); // whether it could is not looked at, as in the extension
        Files.writeString(folder.resolve(name), Base64.getEncoder().encodeToString(file.toByteArray()));
    }

    /** Training or Inference: the eight keys of the extension's body, escaped as Gson does. */
    static void segment(String[] arguments) throws Exception {
        String body = String.format(
            "{\"modelname\":\"default\",\"b64img\":\"%s\",\"b64lbl\":\"%s\",\"train\":%s,\"eval\":true,"
                + "\"epochs\":1,\"batchsize\":8,\"steps\":%s}",
            text(arguments[2]), text(arguments[3]), arguments[4], arguments[5]);
        post(arguments[1], body, Path.of(arguments[6]));
    }

    static String text(String file) throws IOException {
        return Files.readString(Path.of(file)).replace("=", "\\u003d");
    }

    static void post(String url, String body, Path answer) throws Exception {
        HttpRequest request = HttpRequest.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .uri(URI.create(url))
            .header("accept", "application/json")
            .header("Content-Type", "application/json; charset=utf-8")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        tell(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()), answer);
    }

    static void get(String url, Path answer) throws Exception {
        HttpRequest request = HttpRequest.newBuilder().version(HttpClient.Version.HTTP_1_1).uri(URI.create(url)).build();
        tell(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()), answer);
    }

    static void tell(HttpResponse<String> response, Path answer) throws IOException {
        Files.writeString(answer, response.body());
        System.out.println(response.statusCode() + " " + response.headers().firstValue("Content-Type").orElse(""));
    }

    /** Fills shapes as QuPath does; each line of the file is "number ring ring ...", a ring "x,y;x,y;...". */
    static void paint(String[] arguments) throws IOException {
        int width = Integer.parseInt(arguments[2]), height = Integer.parseInt(arguments[3]);
        BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_INT_ARGB);
        Graphics2D graphics = image.createGraphics();
        graphics.setComposite(AlphaComposite.Src);
        for (String line : Files.readAllLines(Path.of(arguments[1]))) {
            String[] parts = line.split(" ");
            Path2D path = new Path2D.Double(Path2D.WIND_EVEN_ODD);
            for (int ring = 1; ring < parts.length; ring++) {
                boolean first = true;
                for (String corner : parts[ring].split(";")) {
                    double x = Double.parseDouble(corner.split(",")[0]), y = Double.parseDouble(corner.split(",")[1]);
                    if (first)
                        path.moveTo(x, y);
                    else
                        path.lineTo(x, y);
                    first = false;
                }
                path.closePath();
            }
            graphics.setColor(new Color(Integer.parseInt(parts[0]), true));
            graphics.fill(path);
        }
        ByteBuffer numbers = ByteBuffer.allocate(4 * width * height).order(ByteOrder.LITTLE_ENDIAN);
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                numbers.putInt(image.getRGB(x, y));
        Files.write(Path.of(arguments[4]), numbers.array());
    }
}
