package qupath.lib.regions;

public record RegionRequest(String path, double downsample, int x, int y, int width, int height, int z, int t) {
    public static RegionRequest createInstance(
            String path, double downsample, int x, int y, int width, int height, int z, int t) {
        return new RegionRequest(path, downsample, x, y, width, height, z, t);
    }
}
