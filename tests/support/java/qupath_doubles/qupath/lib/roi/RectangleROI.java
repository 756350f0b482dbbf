package qupath.lib.roi;

import qupath.lib.regions.ImagePlane;
import qupath.lib.roi.interfaces.ROI;

public record RectangleROI(double x, double y, double width, double height) implements ROI {
    public int getZ() {
        return 0;
    }

    public int getT() {
        return 0;
    }

    public double getBoundsX() {
        return x;
    }

    public double getBoundsY() {
        return y;
    }

    public double getBoundsWidth() {
        return width;
    }

    public double getBoundsHeight() {
        return height;
    }

    public boolean isArea() {
        return true;
    }

    public ROI translate(double dx, double dy) {
        return new RectangleROI(x + dx, y + dy, width, height);
    }

    public ROI updatePlane(ImagePlane plane) {
        return this;
    }
}
