package qupath.lib.gui.tools;

import javafx.application.Platform;
import qupath.lib.plugins.parameters.ParameterList;

public class GuiTools {
    public static boolean showParameterDialog(String title, ParameterList list) {
        Platform.check();
        return true;
    }
}
