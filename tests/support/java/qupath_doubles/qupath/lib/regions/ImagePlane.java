package qupath.lib.regions;

public class ImagePlane {
    private final int z, t;

    private ImagePlane(int z, int t) {
        this.z = z;
        this.t = t;
    }

    public static ImagePlane getPlane(int z, int t) {
        return new ImagePlane(z, t);
    }

    public int getZ() {
        return z;
    }

    public int getT() {
        return t;
    }
}
