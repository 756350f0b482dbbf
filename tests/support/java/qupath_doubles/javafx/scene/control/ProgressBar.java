package javafx.scene.control;

import javafx.application.Platform;
import javafx.scene.Node;

public class ProgressBar extends Node {
    public ProgressBar(double share) {}

    public void setMaxWidth(double width) {}

    public void setProgress(double share) {
        Platform.check();
    }
}
