/*
 * Cellsparse for QuPath 0.5 to 0.7: trains on a few annotated cells and outlines all others.
 *
 * Nothing is installed: open this file in Automate > Script editor and press Run, or keep it in the folder for user
 * scripts, which puts it into the Automate menu. Cellsparse must be running: `cellsparse up` on this computer, or a
 * server whose address you type.
 *
 * Before: draw around a few cells and give them the class Foreground; mark some background with the class Background.
 * To work on a part of a large image, draw a rectangle without a class and leave it selected.
 *
 * The work is done beside QuPath, which stays usable. Cells that are found have no class. The next run replaces them,
 * unless you have given them one: the class Foreground makes a found cell an example of the next training. Annotations
 * that you drew are never deleted.
 */

import com.google.gson.Gson
import groovy.transform.Field
import java.awt.geom.AffineTransform
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.nio.file.Files
import java.nio.file.Path
import java.time.Duration
import javafx.application.Platform
import javafx.geometry.Insets
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.layout.VBox
import javafx.stage.Stage
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.tools.GuiTools
import qupath.lib.images.servers.TransformedServerBuilder
import qupath.lib.images.writers.ImageWriterTools
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObjectTools
import qupath.lib.objects.PathObjects
import qupath.lib.plugins.parameters.ParameterList
import qupath.lib.regions.ImagePlane
import qupath.lib.regions.RegionRequest
import qupath.lib.roi.RectangleROI

@Field static final String TITLE = 'Cellsparse'
@Field static final String MARK = 'cellsparse'
@Field static final String CELL = 'Foreground'
@Field static final String GROUND = 'Background'
@Field static final Map BACKENDS = ['StarDist': 'stardist', 'Cellpose': 'cellpose', 'U-Net (ELEPHANT)': 'unet']
@Field static final String TRAIN = 'Train, then find all cells'
@Field static final String FIND = 'Find all cells with the last model'
@Field static final int LOOK_MILLIS = 1000
@Field static final long MOST_PIXELS = 67108864L

/** A failure that is told in a dialog. */
class Failure extends Exception {
    Failure(String sentence) { super(sentence) }
}

/** The user pressed Cancel. */
class Cancelled extends Exception {}

/** Cellsparse's REST interface. */
class Server {
    private final String base
    private final HttpClient client
    private final Gson gson = new Gson()
    private final String token = ownToken()

    /** What the server knows the user by, if it asks: CELLSPARSE_TOKEN, or the file .cellsparse/token in the home folder. */
    private static String ownToken() {
        def file = new File(System.getProperty('user.home'), '.cellsparse/token')
        return (System.getenv('CELLSPARSE_TOKEN') ?: (file.isFile() ? file.text : '')).trim()
    }

    Server(String address) {
        base = address.trim().replaceAll('/+$', '')
        if (!(base ==~ /https?:\/\/.+/))
            throw new Failure(
                "The server's address is \"${base}\"; it begins with http:// or https://, such as http://localhost:8000.")
        client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(10))
            .build()
    }

    Map get(String path) { return read(text(send('GET', path, HttpRequest.BodyPublishers.noBody(), null))) }

    Map post(String path, Map content) {
        def body = HttpRequest.BodyPublishers.ofString(gson.toJson(content))
        return read(text(send('POST', path, body, 'application/json')))
    }

    Map upload(String path, Path file, String type) {
        return read(text(send('POST', path, HttpRequest.BodyPublishers.ofFile(file), type)))
    }

    void delete(String path) { send('DELETE', path, HttpRequest.BodyPublishers.noBody(), null) }

    byte[] download(String path) { return send('GET', path, HttpRequest.BodyPublishers.noBody(), null) }

    /** All entries of a list, over all its pages. */
    List all(String path, String entries) {
        def found = []
        String token = ''
        while (true) {
            Map page = get("${path}?page_size=200&page_token=${encode(token)}")
            found.addAll(page[entries] as List ?: [])
            token = page['next_page_token'] ?: ''
            if (!token)
                return found
        }
    }

    static String encode(String text) { return URLEncoder.encode(text, 'UTF-8').replace('+', '%20') }

    private byte[] send(String method, String path, HttpRequest.BodyPublisher body, String type) {
        def request = HttpRequest.newBuilder(URI.create("${base}/api/v1${path}"))
            .timeout(Duration.ofHours(1))
            .method(method, body)
        request.header('Accept', 'application/json, */*')
        if (token)
            request.header('Authorization', "Bearer ${token}".toString())
        if (type)
            request.header('Content-Type', type)
        HttpResponse<byte[]> answer
        try {
            answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray())
        } catch (IOException e) {
            def why = e.message ?: e.class.simpleName
            throw new Failure("${base} does not answer (${why}). Start it with: cellsparse up")
        }
        if (answer.statusCode().intdiv(100) != 2)
            throw new Failure(sentence(answer))
        return answer.body()
    }

    private String sentence(HttpResponse<byte[]> answer) {
        String said = text(answer.body())
        try {
            said = read(said)['detail'] ?: said
        } catch (Exception ignored) {
            // Something between here and the server wrote a text of its own.
        }
        return said ?: "${base} answered with status ${answer.statusCode()}."
    }

    private Map read(String json) { return json ? gson.fromJson(json, Map) : [:] }

    private static String text(byte[] data) { return new String(data, 'UTF-8') }
}

/** The window that shows how far it is. Everything but `check` belongs to JavaFX's thread. */
class Progress {
    private final Stage stage = new Stage()
    private final Label label = new Label('Starting')
    private final ProgressBar bar = new ProgressBar(-1.0d)
    private volatile boolean cancelled = false

    Progress(String title, Stage owner) {
        def cancel = new Button('Cancel')
        cancel.setOnAction { stop() }
        label.setWrapText(true)
        bar.setMaxWidth(Double.MAX_VALUE)
        def box = new VBox(10.0d, label, bar, cancel)
        box.setPadding(new Insets(15.0d))
        box.setPrefWidth(420.0d)
        stage.initOwner(owner)
        stage.setTitle(title)
        stage.setScene(new Scene(box))
        stage.setOnCloseRequest { stop() }
        stage.show()
    }

    /** Shows a text and a share from 0 to 1, negative if unknown. Callable from any thread. */
    void tell(String text, double share = -1.0d) {
        Platform.runLater {
            label.setText(text)
            bar.setProgress(share)
        }
    }

    void close() { Platform.runLater { stage.close() } }

    /** Throws if the user has pressed Cancel. Callable from any thread. */
    void check() {
        if (cancelled)
            throw new Cancelled()
    }

    private void stop() {
        cancelled = true
        label.setText('Cancelling')
    }
}

def gui = QuPathGUI.getInstance()
if (gui == null)
    throw new IllegalStateException('Cellsparse needs QuPath\'s window: run it from the script editor.')
Platform.runLater { begin(gui) }

/** Asks for the settings, takes what is annotated, and starts the work in a thread of its own. */
void begin(gui) {
    def imageData = gui.getImageData()
    if (imageData == null) {
        Dialogs.showErrorMessage(TITLE, 'Open an image first.')
        return
    }
    def settings = askSettings()
    if (settings == null)
        return
    def job
    try {
        job = gather(gui, imageData, settings)
    } catch (Failure failure) {
        Dialogs.showErrorMessage(TITLE, failure.message)
        return
    }
    def progress = new Progress(TITLE, gui.getStage())
    def thread = new Thread({ work(job, progress) } as Runnable, 'cellsparse')
    thread.setDaemon(true)
    thread.start()
}

/** Returns the settings, which QuPath keeps between sessions; null if the user cancels. */
Map askSettings() {
    def address = PathPrefs.createPersistentPreference('cellsparse.server', 'http://localhost:8000')
    def backend = PathPrefs.createPersistentPreference('cellsparse.backend', BACKENDS.keySet().first())
    def fresh = PathPrefs.createPersistentPreference('cellsparse.fresh', false)
    def annotations = PathPrefs.createPersistentPreference('cellsparse.annotations', true)
    def channel = PathPrefs.createPersistentPreference('cellsparse.channel', 0)
    def names = BACKENDS.keySet() as List
    def chosen = names.contains(backend.get()) ? backend.get() : names.first()
    def list = new ParameterList()
        .addChoiceParameter('task', 'Task', TRAIN, [TRAIN, FIND])
        .addStringParameter('address', 'Server', address.get(), 'Address of Cellsparse, such as http://localhost:8000')
        .addChoiceParameter('backend', 'Method', chosen, names)
        .addIntParameter('channel', 'Channel (0: all)', channel.get(), '',
            'Number of the channel to use, from 1; 0 sends all, of which there may be 4')
        .addBooleanParameter('fresh', 'Start from scratch', fresh.get(),
            'Otherwise training goes on from the last model of this project')
        .addBooleanParameter('annotations', 'Results as annotations', annotations.get(),
            'Otherwise as detections, which are quicker when there are thousands')
    if (!GuiTools.showParameterDialog(TITLE, list))
        return null
    address.set(list.getStringParameterValue('address').trim())
    backend.set(list.getChoiceParameterValue('backend') as String)
    channel.set(list.getIntParameterValue('channel'))
    fresh.set(list.getBooleanParameterValue('fresh'))
    annotations.set(list.getBooleanParameterValue('annotations'))
    return [
        train: list.getChoiceParameterValue('task') == TRAIN, address: address.get(), backend: BACKENDS[backend.get()],
        channel: channel.get(), fresh: fresh.get(), annotations: annotations.get(),
    ]
}

/** Returns all that the work needs, copied: what is drawn meanwhile changes nothing. */
Map gather(gui, imageData, Map settings) {
    def image = imageData.getServer()
    def hierarchy = imageData.getHierarchy()
    def viewer = gui.getViewer()
    int z = viewer.getZPosition(), t = viewer.getTPosition()
    int x = 0, y = 0, width = image.getWidth(), height = image.getHeight()
    def selected = hierarchy.getSelectionModel().getSelectedObject()
    if (selected != null && selected.isAnnotation() && selected.getPathClass() == null &&
            selected.getROI() instanceof RectangleROI && !selected.getMetadata().containsKey(MARK)) {
        def roi = selected.getROI()
        x = Math.max(0, Math.floor(roi.getBoundsX()) as int)
        y = Math.max(0, Math.floor(roi.getBoundsY()) as int)
        width = Math.min(width, Math.ceil(roi.getBoundsX() + roi.getBoundsWidth()) as int) - x
        height = Math.min(height, Math.ceil(roi.getBoundsY() + roi.getBoundsHeight()) as int) - y
    }
    if (width <= 0 || height <= 0)
        throw new Failure('The selected rectangle lies outside the image.')
    if ((width as long) * height > MOST_PIXELS)
        throw new Failure(
            "The image has ${width} x ${height} pixels; the server takes ${MOST_PIXELS}. Draw a rectangle without a " +
            'class around a part of it, leave it selected, and run the script again.')
    if (settings.channel < 0 || settings.channel > image.nChannels())
        throw new Failure("The image has ${image.nChannels()} channels; channel ${settings.channel} does not exist.")
    def plane = ImagePlane.getPlane(z, t)
    def drawn = (hierarchy.getAnnotationObjects() + hierarchy.getDetectionObjects()).findAll { object ->
        def roi = object.getROI()
        roi != null && roi.isArea() && roi.getZ() == z && roi.getT() == t && className(object) in [CELL, GROUND] &&
            roi.getBoundsX() < x + width && roi.getBoundsX() + roi.getBoundsWidth() > x &&
            roi.getBoundsY() < y + height && roi.getBoundsY() + roi.getBoundsHeight() > y
    }
    if (settings.train && !drawn.any { className(it) == CELL })
        throw new Failure(
            "No annotation has the class ${CELL} (spelled so): draw around a few cells, set their class to ${CELL}, " +
            'and run the script again.')
    def move = AffineTransform.getTranslateInstance(-x as double, -y as double)
    def moved = drawn.collect { PathObjectTools.transformObject(it, move, false) }
    def project = gui.getProject()
    def name = image.getMetadata().getName()
    def part = [x, y, width, height, z, t, settings.channel].join(',')
    return settings + [
        image: image, hierarchy: hierarchy, plane: plane, x: x, y: y, width: width, height: height, drawn: moved,
        project: "QuPath: ${project == null ? 'no project' : project.getName()}".take(100).toString(),
        name: "${name.take(150)} [${part}]".toString(),
    ]
}

String className(object) { return object.getPathClass() == null ? '' : object.getPathClass().toString() }

/** Does the work, and tells how it ended. */
void work(Map job, Progress progress) {
    try {
        def server = new Server(job.address as String)
        def found = job.train ? train(server, job, progress) : findOnly(server, job, progress)
        progress.close()
        Platform.runLater { show(job, found) }
    } catch (Cancelled ignored) {
        progress.close()
    } catch (Failure failure) {
        progress.close()
        Platform.runLater { Dialogs.showErrorMessage(TITLE, failure.message) }
    } catch (Throwable error) {
        progress.close()
        Platform.runLater { Dialogs.showErrorMessage(TITLE, error) }
    }
}

/** Sends image and labels, trains, and returns the cells found. */
List train(Server server, Map job, Progress progress) {
    def project = findProject(server, job)
    def image = sendImage(server, job, project, progress)
    progress.tell('Sending the labels')
    def labels = Files.createTempFile('cellsparse', '.geojson')
    try {
        Files.newOutputStream(labels).withCloseable { stream ->
            def how = PathIO.GeoJsonExportOptions.FEATURE_COLLECTION
            PathIO.exportObjectsAsGeoJSON(stream, job.drawn as Collection, how)
        }
        server.upload("/images/${image}/labels?author=qupath", labels, 'application/geo+json')
    } finally {
        Files.deleteIfExists(labels)
    }
    progress.check()
    def content = [backend: job.backend, preset: 'fast']
    def model = job.fresh ? null : lastModel(server, job, project)
    if (model)
        content.initial_model = model
    def run = server.post("/projects/${project}/train", content).id
    follow(server, run as String, progress)
    return findCells(server, image, run as String, progress)
}

/** Finds all cells with the last model. */
List findOnly(Server server, Map job, Progress progress) {
    def project = findProject(server, job)
    def model = lastModel(server, job, project)
    if (!model)
        throw new Failure('Train first: this project has no model of this method yet.')
    def known = server.all("/projects/${project}/images", 'images').find { it.name == job.name }
    def image = known ? known.id as String : sendImage(server, job, project, progress)
    return findCells(server, image, model, progress)
}

/** Returns the id of the project on the server, which is made where there is none. */
String findProject(Server server, Map job) {
    def known = server.all('/projects', 'projects').find { it.name == job.project }
    return (known ?: server.post('/projects', [name: job.project])).id
}

/** Returns the id of the newest model; null if there is none. */
String lastModel(Server server, Map job, String project) {
    def runs = server.all("/projects/${project}/runs", 'runs')
    return runs.find { it.backend == job.backend && it.state == 'RUN_STATE_SUCCEEDED' }?.id
}

/** Sends the pixels in place of the same part of the image, and returns the id. */
String sendImage(Server server, Map job, String project, Progress progress) {
    progress.tell('Reading the image')
    def file = Files.createTempFile('cellsparse', '.tif')
    try {
        def image = job.image
        if (job.channel > 0)
            image = new TransformedServerBuilder(image).extractChannels(job.channel - 1).build()
        def part = RegionRequest.createInstance(
            image.getPath(), 1.0d, job.x, job.y, job.width, job.height, job.plane.getZ(), job.plane.getT())
        ImageWriterTools.writeImageRegion(image, part, file.toString())
        progress.check()
        progress.tell('Sending the image')
        def older = server.all("/projects/${project}/images", 'images').findAll { it.name == job.name }
        older.each { server.delete("/images/${it.id}") }
        def name = Server.encode(job.name as String)
        return server.upload("/projects/${project}/images?name=${name}", file, 'image/tiff').id
    } finally {
        Files.deleteIfExists(file)
    }
}

/** Waits for the end of a training. Cancel ends it on the server, too. */
void follow(Server server, String run, Progress progress) {
    while (true) {
        def now = server.get("/runs/${run}")
        switch (now.state) {
            case 'RUN_STATE_SUCCEEDED':
                return
            case 'RUN_STATE_FAILED':
                throw new Failure("The training failed: ${now.message}")
            case 'RUN_STATE_CANCELLED':
                throw new Failure('The training was cancelled on the server.')
        }
        tell(now, progress)
        Thread.sleep(LOOK_MILLIS)
        try {
            progress.check()
        } catch (Cancelled cancelled) {
            server.post("/runs/${run}/cancel", [:])
            throw cancelled
        }
    }
}

/** Shows how far a training is. */
void tell(Map run, Progress progress) {
    def step = run.progress?.step ?: 0
    def total = run.progress?.total_steps ?: 0
    if (!total) {
        def place = run.queue_position ? " Place in the queue: ${run.queue_position as int}." : ''
        progress.tell("Waiting for the training to begin.${place} ${run.message ?: ''}".toString())
        return
    }
    def loss = run.progress.losses?.loss
    def text = "Training: step ${step as int} of ${total as int}"
    if (loss != null)
        text += String.format(', loss %.3f', loss as double)
    if (run.progress.eta_seconds)
        text += ", ${Math.ceil(run.progress.eta_seconds as double) as int} s left"
    progress.tell(text.toString(), (step as double) / (total as double))
}

/** Returns the cells that a model finds. */
List findCells(Server server, String image, String model, Progress progress) {
    progress.check()
    progress.tell('Finding all cells')
    def layer = server.post("/images/${image}/layers", [model_id: model]).id
    def data = server.download("/images/${image}/labels?format=geojson&layer=${layer}")
    progress.check()
    return PathIO.readObjectsFromGeoJSON(new ByteArrayInputStream(data))
}

/** Adds the cells found in place of those that an earlier run found here and nobody has given a class. */
void show(Map job, List found) {
    def objects = found.collect { object ->
        def roi = object.getROI().translate(job.x as double, job.y as double).updatePlane(job.plane)
        def cell = job.annotations ? PathObjects.createAnnotationObject(roi) : PathObjects.createDetectionObject(roi)
        cell.getMetadata().put(MARK, job.name as String)
        return cell
    }
    def hierarchy = job.hierarchy
    def older = (hierarchy.getAnnotationObjects() + hierarchy.getDetectionObjects()).findAll {
        it.getPathClass() == null && it.getMetadata().containsKey(MARK) && inside(it.getROI(), job)
    }
    hierarchy.removeObjects(older, true)
    hierarchy.addObjects(objects)
    Dialogs.showInfoNotification(TITLE, "${objects.size()} cells found")
}

/** Whether an outline lies in the part of the image that was sent. */
boolean inside(roi, Map job) {
    return roi.getZ() == job.plane.getZ() && roi.getT() == job.plane.getT() &&
        roi.getBoundsX() >= job.x && roi.getBoundsX() + roi.getBoundsWidth() <= job.x + job.width &&
        roi.getBoundsY() >= job.y && roi.getBoundsY() + roi.getBoundsHeight() <= job.y + job.height
}
