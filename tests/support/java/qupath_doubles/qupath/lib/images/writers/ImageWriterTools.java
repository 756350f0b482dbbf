package qupath.lib.images.writers;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import qupath.lib.images.servers.ImageServer;
import qupath.lib.regions.RegionRequest;

public class ImageWriterTools {
    public static boolean writeImageRegion(ImageServer server, RegionRequest request, String path) throws IOException {
        if (Thread.currentThread().getName().equals("window"))
            throw new IllegalStateException("QuPath's window would freeze");
        Files.copy(server.pixels(), Path.of(path), StandardCopyOption.REPLACE_EXISTING);
        return true;
    }
}
