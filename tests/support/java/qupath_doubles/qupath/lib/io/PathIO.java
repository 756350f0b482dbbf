package qupath.lib.io;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Locale;
import qupath.lib.objects.PathObject;
import qupath.lib.roi.RectangleROI;

public class PathIO {
    public enum GeoJsonExportOptions { FEATURE_COLLECTION }

    public static void exportObjectsAsGeoJSON(
            OutputStream stream, Collection<? extends PathObject> objects, GeoJsonExportOptions... options)
            throws IOException {
        List<String> features = new ArrayList<>();
        for (PathObject object : objects) {
            double x = object.getROI().getBoundsX(), y = object.getROI().getBoundsY();
            double right = x + object.getROI().getBoundsWidth(), lower = y + object.getROI().getBoundsHeight();
            features.add(String.format(
                Locale.ROOT,
                "{\"type\":\"Feature\",\"geometry\":{\"type\":\"Polygon\",\"coordinates\":"
                    + "[[[%f,%f],[%f,%f],[%f,%f],[%f,%f],[%f,%f]]]},"
                    + "\"properties\":{\"objectType\":\"annotation\",\"classification\":{\"name\":\"%s\"}}}",
                x, y, right, y, right, lower, x, lower, x, y, object.getPathClass()));
        }
        String text = "{\"type\":\"FeatureCollection\",\"features\":[" + String.join(",", features) + "]}";
        stream.write(text.getBytes(StandardCharsets.UTF_8));
    }

    public static List<PathObject> readObjectsFromGeoJSON(InputStream stream) throws IOException {
        String text = new String(stream.readAllBytes(), StandardCharsets.UTF_8);
        List<PathObject> found = new ArrayList<>();
        for (JsonElement feature : new Gson().fromJson(text, JsonObject.class).getAsJsonArray("features")) {
            double[] box = {Double.MAX_VALUE, Double.MAX_VALUE, -Double.MAX_VALUE, -Double.MAX_VALUE};
            extend(box, feature.getAsJsonObject().getAsJsonObject("geometry").getAsJsonArray("coordinates"));
            var roi = new RectangleROI(box[0], box[1], box[2] - box[0], box[3] - box[1]);
            found.add(new PathObject(roi, null, false));
        }
        return found;
    }

    private static void extend(double[] box, JsonArray coordinates) {
        if (coordinates.get(0).isJsonArray()) {
            coordinates.forEach(inner -> extend(box, inner.getAsJsonArray()));
            return;
        }
        double x = coordinates.get(0).getAsDouble(), y = coordinates.get(1).getAsDouble();
        box[0] = Math.min(box[0], x);
        box[1] = Math.min(box[1], y);
        box[2] = Math.max(box[2], x);
        box[3] = Math.max(box[3], y);
    }
}
