package javafx.scene;

public class Scene {
    public final Node root;

    public Scene(Node root) {
        this.root = root;
    }
}
