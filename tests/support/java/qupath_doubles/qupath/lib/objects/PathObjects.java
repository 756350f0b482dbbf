package qupath.lib.objects;

import qupath.lib.roi.interfaces.ROI;

public class PathObjects {
    public static PathObject createAnnotationObject(ROI roi) {
        return new PathObject(roi, null, true);
    }

    public static PathObject createDetectionObject(ROI roi) {
        return new PathObject(roi, null, false);
    }
}
