package javafx.application;

import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** One thread, as JavaFX has it. */
public class Platform {
    private static final ExecutorService THREAD = Executors.newSingleThreadExecutor(work -> {
        Thread thread = new Thread(work, "window");
        thread.setDaemon(true);
        return thread;
    });

    public static void runLater(Runnable work) {
        THREAD.execute(() -> {
            try {
                work.run();
            } catch (Throwable error) {
                error.printStackTrace();
                System.exit(3);
            }
        });
    }

    /** Fails where JavaFX would: off its thread. */
    public static void check() {
        if (!Thread.currentThread().getName().equals("window"))
            throw new IllegalStateException("not on JavaFX's thread: " + Thread.currentThread().getName());
    }
}
