package qupath.lib.images.servers;

import java.nio.file.Path;

public record ImageServer(Path pixels, int getWidth, int getHeight, int nChannels, String getPath) {
    public int getWidth() {
        return getWidth;
    }

    public int getHeight() {
        return getHeight;
    }

    public String getPath() {
        return getPath;
    }

    /** The metadata itself. */
    public ImageServer getMetadata() {
        return this;
    }

    public String getName() {
        return "nuclei & more.tif";
    }
}
