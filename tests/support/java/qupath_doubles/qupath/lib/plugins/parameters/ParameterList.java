package qupath.lib.plugins.parameters;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Answers the defaults, unless the test has typed something else. */
public class ParameterList {
    public static final Map<String, Object> TYPED = new HashMap<>();
    private final Map<String, Object> values = new HashMap<>();

    public <S> ParameterList addChoiceParameter(String key, String prompt, S standard, List<S> choices) {
        return keep(key, standard);
    }

    public ParameterList addStringParameter(String key, String prompt, String standard, String help) {
        return keep(key, standard);
    }

    public ParameterList addIntParameter(String key, String prompt, int standard, String unit, String help) {
        return keep(key, standard);
    }

    public ParameterList addBooleanParameter(String key, String prompt, boolean standard, String help) {
        return keep(key, standard);
    }

    public String getStringParameterValue(String key) {
        return (String) values.get(key);
    }

    public Object getChoiceParameterValue(String key) {
        return values.get(key);
    }

    public Integer getIntParameterValue(String key) {
        return (Integer) values.get(key);
    }

    public Boolean getBooleanParameterValue(String key) {
        return (Boolean) values.get(key);
    }

    private ParameterList keep(String key, Object standard) {
        values.put(key, TYPED.getOrDefault(key, standard));
        return this;
    }
}
