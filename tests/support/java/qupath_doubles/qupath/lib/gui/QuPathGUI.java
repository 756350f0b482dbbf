package qupath.lib.gui;

import javafx.stage.Stage;
import qupath.lib.images.servers.ImageServer;
import qupath.lib.objects.hierarchy.PathObjectHierarchy;

/** QuPath with one image; it is its own viewer, image data and project. */
public class QuPathGUI {
    private static QuPathGUI instance;
    private final ImageServer server;
    private final PathObjectHierarchy hierarchy = new PathObjectHierarchy();

    public QuPathGUI(ImageServer server) {
        this.server = server;
        instance = this;
    }

    public static QuPathGUI getInstance() {
        return instance;
    }

    public QuPathGUI getImageData() {
        return this;
    }

    public QuPathGUI getViewer() {
        return this;
    }

    public QuPathGUI getProject() {
        return this;
    }

    public String getName() {
        return System.getProperty("project");
    }

    public Stage getStage() {
        return new Stage();
    }

    public ImageServer getServer() {
        return server;
    }

    public PathObjectHierarchy getHierarchy() {
        return hierarchy;
    }

    public int getZPosition() {
        return 0;
    }

    public int getTPosition() {
        return 0;
    }
}
