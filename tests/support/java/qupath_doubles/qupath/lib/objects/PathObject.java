package qupath.lib.objects;

import java.util.HashMap;
import java.util.Map;
import qupath.lib.roi.interfaces.ROI;

public class PathObject {
    private final ROI roi;
    private final String pathClass;
    private final boolean annotation;
    private final Map<String, String> metadata = new HashMap<>();

    public PathObject(ROI roi, String pathClass, boolean annotation) {
        this.roi = roi;
        this.pathClass = pathClass;
        this.annotation = annotation;
    }

    public ROI getROI() {
        return roi;
    }

    /** A text here; QuPath's PathClass has this text. */
    public Object getPathClass() {
        return pathClass;
    }

    public boolean isAnnotation() {
        return annotation;
    }

    public Map<String, String> getMetadata() {
        return metadata;
    }
}
