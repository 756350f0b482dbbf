package qupath.lib.images.servers;

public class TransformedServerBuilder {
    private final ImageServer base;

    public TransformedServerBuilder(ImageServer base) {
        this.base = base;
    }

    public TransformedServerBuilder extractChannels(int... channels) {
        return this;
    }

    public ImageServer build() {
        return base;
    }
}
