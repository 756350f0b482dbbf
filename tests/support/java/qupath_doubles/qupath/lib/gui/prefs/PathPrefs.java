package qupath.lib.gui.prefs;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import qupath.lib.common.Value;

public class PathPrefs {
    public static final Map<String, Object> KEPT = new ConcurrentHashMap<>();

    public static Value<String> createPersistentPreference(String name, String standard) {
        return new Value<>((String) KEPT.getOrDefault(name, standard));
    }

    public static Value<Boolean> createPersistentPreference(String name, boolean standard) {
        return new Value<>((Boolean) KEPT.getOrDefault(name, standard));
    }

    public static Value<Integer> createPersistentPreference(String name, int standard) {
        return new Value<>((Integer) KEPT.getOrDefault(name, standard));
    }
}
