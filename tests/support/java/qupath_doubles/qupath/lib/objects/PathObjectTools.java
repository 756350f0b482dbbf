package qupath.lib.objects;

import java.awt.geom.AffineTransform;

public class PathObjectTools {
    public static PathObject transformObject(PathObject object, AffineTransform move, boolean copyMeasurements) {
        var roi = object.getROI().translate(move.getTranslateX(), move.getTranslateY());
        return new PathObject(roi, (String) object.getPathClass(), object.isAnnotation());
    }
}
