package javafx.scene.control;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import javafx.application.Platform;
import javafx.scene.Node;

public class Label extends Node {
    public static final List<String> SHOWN = new CopyOnWriteArrayList<>();

    public Label(String text) {}

    public void setText(String text) {
        Platform.check();
        SHOWN.add(text);
    }

    public void setWrapText(boolean wrap) {}
}
