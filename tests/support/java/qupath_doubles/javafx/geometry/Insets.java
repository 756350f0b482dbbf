package javafx.geometry;

public record Insets(double all) {}
