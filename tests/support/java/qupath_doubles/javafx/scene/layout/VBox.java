package javafx.scene.layout;

import java.util.List;
import javafx.geometry.Insets;
import javafx.scene.Node;

public class VBox extends Node {
    public final List<Node> children;

    public VBox(double spacing, Node... children) {
        this.children = List.of(children);
    }

    public void setPadding(Insets insets) {}

    public void setPrefWidth(double width) {}
}
