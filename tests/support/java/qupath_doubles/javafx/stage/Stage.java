package javafx.stage;

import javafx.application.Platform;
import javafx.event.EventHandler;
import javafx.scene.Scene;

public class Stage {
    public static volatile Stage shown;
    public Scene scene;
    public EventHandler<Object> closing;

    public void initOwner(Stage owner) {}

    public void setTitle(String title) {}

    public void setScene(Scene scene) {
        this.scene = scene;
    }

    public void setOnCloseRequest(EventHandler<Object> closing) {
        this.closing = closing;
    }

    public void show() {
        Platform.check();
        shown = this;
    }

    public void close() {
        Platform.check();
        shown = null;
    }
}
