package javafx.scene.control;

import javafx.event.EventHandler;
import javafx.scene.Node;

public class Button extends Node {
    public EventHandler<Object> action;

    public Button(String text) {}

    public void setOnAction(EventHandler<Object> action) {
        this.action = action;
    }
}
