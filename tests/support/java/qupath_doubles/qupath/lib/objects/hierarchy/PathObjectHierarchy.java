package qupath.lib.objects.hierarchy;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import javafx.application.Platform;
import qupath.lib.objects.PathObject;

public class PathObjectHierarchy {
    public final List<PathObject> objects = new ArrayList<>();
    public PathObject selected;

    public Collection<PathObject> getAnnotationObjects() {
        return objects.stream().filter(PathObject::isAnnotation).toList();
    }

    public Collection<PathObject> getDetectionObjects() {
        return objects.stream().filter(object -> !object.isAnnotation()).toList();
    }

    public boolean addObjects(Collection<? extends PathObject> added) {
        Platform.check();
        return objects.addAll(added);
    }

    public void removeObjects(Collection<? extends PathObject> removed, boolean keepChildren) {
        Platform.check();
        objects.removeAll(removed);
    }

    /** The selection model itself. */
    public PathObjectHierarchy getSelectionModel() {
        return this;
    }

    public PathObject getSelectedObject() {
        return selected;
    }
}
