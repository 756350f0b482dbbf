package qupath.lib.roi.interfaces;

import qupath.lib.regions.ImagePlane;

public interface ROI {
    int getZ();

    int getT();

    double getBoundsX();

    double getBoundsY();

    double getBoundsWidth();

    double getBoundsHeight();

    boolean isArea();

    ROI translate(double dx, double dy);

    ROI updatePlane(ImagePlane plane);
}
