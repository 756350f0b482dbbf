import com.google.gson.Gson;
import groovy.lang.GroovyShell;
import java.io.File;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import javafx.scene.control.Button;
import javafx.scene.control.Label;
import javafx.scene.layout.VBox;
import javafx.stage.Stage;
import qupath.fx.dialogs.Dialogs;
import qupath.lib.gui.QuPathGUI;
import qupath.lib.images.servers.ImageServer;
import qupath.lib.objects.PathObject;
import qupath.lib.plugins.parameters.ParameterList;
import qupath.lib.roi.RectangleROI;

/**
 * Runs the script in a QuPath that is made of doubles, and prints what a user would see.
 *
 * Arguments: script, image, width, height, seconds to wait, then JSON: {"typed": what the dialog holds, "runs": how
 * often to run it, "cancel": whether to press Cancel once it trains, "drawn": [[class, x, y, width, height], ...],
 * "selected": [x, y, width, height]}.
 */
public class RunScript {
    public static void main(String[] arguments) throws Exception {
        Map<?, ?> plan = new Gson().fromJson(arguments[5], Map.class);
        int width = Integer.parseInt(arguments[2]), height = Integer.parseInt(arguments[3]);
        var gui = new QuPathGUI(new ImageServer(Path.of(arguments[1]), width, height, 1, "file:/image"));
        ((Map<?, ?>) plan.get("typed")).forEach((key, value) ->
            ParameterList.TYPED.put((String) key, value instanceof Double number ? (Object) number.intValue() : value));
        for (Object drawn : (List<?>) plan.get("drawn")) {
            List<?> row = (List<?>) drawn;
            gui.getHierarchy().objects.add(new PathObject(box(row.subList(1, 5)), (String) row.get(0), true));
        }
        if (plan.get("selected") != null) {
            gui.getHierarchy().selected = new PathObject(box((List<?>) plan.get("selected")), null, true);
            gui.getHierarchy().objects.add(gui.getHierarchy().selected);
        }
        long end = System.nanoTime() + (long) (Double.parseDouble(arguments[4]) * 1e9);
        for (int run = 1; run <= ((Number) plan.get("runs")).intValue(); run++) {
            new GroovyShell().evaluate(new File(arguments[0]));
            boolean pressed = false;
            while (Dialogs.SHOWN.size() < run && !(pressed && Stage.shown == null) && System.nanoTime() < end) {
                Thread.sleep(50);
                if (Boolean.TRUE.equals(plan.get("cancel")) && !pressed
                        && Label.SHOWN.stream().anyMatch(text -> text.startsWith("Training"))) {
                    pressed = true;
                    var cancel = (Button) ((VBox) Stage.shown.scene.root).children.get(2);
                    javafx.application.Platform.runLater(() -> cancel.action.handle(null));
                }
            }
        }
        var objects = gui.getHierarchy().objects.stream().map(object -> Map.of(
            "class", object.getPathClass() == null ? "" : object.getPathClass(),
            "annotation", object.isAnnotation(),
            "found", !object.getMetadata().isEmpty(),
            "x", object.getROI().getBoundsX(), "y", object.getROI().getBoundsY(),
            "width", object.getROI().getBoundsWidth(), "height", object.getROI().getBoundsHeight())).toList();
        System.out.println(new Gson().toJson(Map.of(
            "dialogs", Dialogs.SHOWN, "progress", Label.SHOWN, "objects", objects, "open", Stage.shown != null)));
    }

    private static RectangleROI box(List<?> numbers) {
        double[] at = numbers.stream().mapToDouble(number -> ((Number) number).doubleValue()).toArray();
        return new RectangleROI(at[0], at[1], at[2], at[3]);
    }
}
