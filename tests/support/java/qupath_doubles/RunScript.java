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
 * Arguments: script, image, width, height, seconds to wait, then JSON: {"drawn": [[class, x, y, width, height], ...],
 * "steps": [{"typed": what the dialog holds, "cancel": whether to press Cancel once it trains, "drawn": instead of the
 * first, "selected": [x, y, width, height]}, ...]}.
 */
public class RunScript {
    public static void main(String[] arguments) throws Exception {
        Map<?, ?> plan = new Gson().fromJson(arguments[5], Map.class);
        int width = Integer.parseInt(arguments[2]), height = Integer.parseInt(arguments[3]);
        var gui = new QuPathGUI(new ImageServer(Path.of(arguments[1]), width, height, 1, "file:/image"));
        draw(gui, (List<?>) plan.get("drawn"));
        long end = System.nanoTime() + (long) (Double.parseDouble(arguments[4]) * 1e9);
        for (Object each : (List<?>) plan.get("steps")) {
            Map<?, ?> step = (Map<?, ?>) each;
            ParameterList.TYPED.clear();
            ((Map<?, ?>) step.get("typed")).forEach((key, value) -> ParameterList.TYPED.put(
                (String) key, value instanceof Double number ? (Object) number.intValue() : value));
            if (step.get("drawn") != null) {
                gui.getHierarchy().objects.clear();
                draw(gui, (List<?>) step.get("drawn"));
            }
            List<?> box = (List<?>) step.get("selected");
            gui.getHierarchy().selected = box == null ? null : new PathObject(box(box), null, true);
            run(new File(arguments[0]), Boolean.TRUE.equals(step.get("cancel")), end);
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

    /** Runs it until a dialog tells how it ended, or until the window is closed after Cancel. */
    private static void run(File script, boolean cancel, long end) throws Exception {
        int before = Dialogs.SHOWN.size();
        Label.SHOWN.clear();
        new GroovyShell().evaluate(script);
        boolean pressed = false;
        while (Dialogs.SHOWN.size() == before && !(pressed && Stage.shown == null) && System.nanoTime() < end) {
            Thread.sleep(50);
            if (cancel && !pressed && Label.SHOWN.stream().anyMatch(text -> text.startsWith("Training"))) {
                pressed = true;
                var button = (Button) ((VBox) Stage.shown.scene.root).children.get(2);
                javafx.application.Platform.runLater(() -> button.action.handle(null));
            }
        }
    }

    private static void draw(QuPathGUI gui, List<?> drawn) {
        for (Object each : drawn) {
            List<?> row = (List<?>) each;
            gui.getHierarchy().objects.add(new PathObject(box(row.subList(1, 5)), (String) row.get(0), true));
        }
    }

    private static RectangleROI box(List<?> numbers) {
        double[] at = numbers.stream().mapToDouble(number -> ((Number) number).doubleValue()).toArray();
        return new RectangleROI(at[0], at[1], at[2], at[3]);
    }
}
