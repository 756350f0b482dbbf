package qupath.fx.dialogs;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import javafx.application.Platform;

public class Dialogs {
    public static final List<String> SHOWN = new CopyOnWriteArrayList<>();

    public static void showErrorMessage(String title, String message) {
        Platform.check();
        SHOWN.add("error: " + message);
    }

    public static void showErrorMessage(String title, Throwable error) {
        error.printStackTrace();
        showErrorMessage(title, error.toString());
    }

    public static void showInfoNotification(String title, String message) {
        Platform.check();
        SHOWN.add("info: " + message);
    }
}
