"""Check training data, train, and retrain with corrections."""

import os
import tempfile

from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsProcessingUtils,
)

from ..enums import DOUBLE, FILE, FOLDER, INTEGER, RASTER, VECTOR, advanced
from ..inputs import lend_images, write_source
from .base import EngineAlgorithm, model_parameter, option

GROUP = "Train"
RECIPES = ["landcover", "roads"]
YAML = "Recipes (*.yaml *.yml)"


class CheckData(EngineAlgorithm):
    """``terradapt data check``."""

    NAME, TITLE, GROUP = "check", "Check training data", GROUP
    TAGS = ("data", "labels", "preflight", "alignment", "leaks")
    HELP = (
        "Looks for what would spoil a training: CRS, resolution, labels that are shifted or do not "
        "fit, nodata, classes, unreadable files, images that are in two splits. With a recipe it "
        "also estimates memory and time, which needs the full engine.\n\n"
        "The folder holds images/ and labels/ (the same file names), or images/ and one vector "
        "file."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterFile("DATA", "Folder of training data", FOLDER))
        self.addParameter(
            QgsProcessingParameterEnum(
                "RECIPE", "Estimate memory and time of", ["nothing", *RECIPES], defaultValue=0
            )
        )
        self.addParameter(
            QgsProcessingParameterFileDestination(
                "PAGE", "Page with pictures (needs the full engine)", "HTML files (*.html)",
                optional=True, createByDefault=False,
            )
        )  # fmt: skip
        self.addOutput(QgsProcessingOutputBoolean("PASSED", "A training would run"))

    def processAlgorithm(self, parameters, context, feedback):
        """Check."""
        data = self.path(parameters, "DATA", context)
        if not os.path.isdir(data):
            raise QgsProcessingException(f"{data}: no such folder")
        recipe = ["", *RECIPES][self.parameterAsEnum(parameters, "RECIPE", context)]
        page = self.parameterAsFileOutput(parameters, "PAGE", context)
        page = page and os.path.abspath(page)
        words = ["data", "check", data, *option("--recipe", recipe), *option("-o", page)]
        outcome = self.call(words, feedback, fails=False)
        # Status 2 says either that the data would stop a run, or that it cannot be checked at all.
        said = any(line.startswith("dataset ") for line in outcome.log)
        checked = said or "check" in outcome.result
        if outcome.status and not checked:
            self.fail(outcome)
        if outcome.status:
            feedback.reportError(f"{outcome.error}\nWhat to do: {outcome.fix}")
        found = {"PASSED": outcome.status == 0}
        return {**found, "PAGE": page} if page and os.path.isfile(page) else found


class Train(EngineAlgorithm):
    """``terradapt train``."""

    NAME, TITLE, GROUP = "train", "Train", GROUP
    GOES_ON = "Run it again to the same folder with 'Go on with the run in the folder'"
    TAGS = ("learn", "model", "segmentation", "land cover", "roads")
    HELP = (
        "Trains a model on your own images and labels: a run's folder with the checkpoint, a log "
        "and a report. Cancel stops it after the step at hand; with 'Go on' it continues there.\n\n"
        "Needs the full engine. Check the training data first."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterFile("DATA", "Folder of training data", FOLDER))
        self.addParameter(QgsProcessingParameterEnum("RECIPE", "Recipe", RECIPES, defaultValue=0))
        self.addParameter(
            QgsProcessingParameterNumber(
                "EPOCHS", "Epochs (as the recipe says when empty)", INTEGER, optional=True,
                minValue=1,
            )
        )  # fmt: skip
        self.addParameter(
            QgsProcessingParameterBoolean("RESUME", "Go on with the run in the folder", False)
        )
        for parameter in (
            QgsProcessingParameterFile(
                "OWN", "Recipe of your own instead", FILE, optional=True, fileFilter=YAML
            ),
            QgsProcessingParameterString(
                "CHANGES", "Changes of the recipe (KEY=VALUE KEY=VALUE)", optional=True
            ),
            QgsProcessingParameterBoolean("REPORT", "Write a report at the end", True),
        ):
            self.addParameter(advanced(parameter))
        self.addParameter(QgsProcessingParameterFolderDestination("RUN", "Folder of the run"))
        _add_run_outputs(self)

    def processAlgorithm(self, parameters, context, feedback):
        """Train."""
        own = self.path(parameters, "OWN", context)
        recipe = own or RECIPES[self.parameterAsEnum(parameters, "RECIPE", context)]
        changes = split_changes(self.text(parameters, "CHANGES", context))
        if self.given(parameters, "EPOCHS"):
            changes.append(f"epochs={self.parameterAsInt(parameters, 'EPOCHS', context)}")
        run = self.path(parameters, "RUN", context)
        words = ["train", recipe, *changes, "--data", self.path(parameters, "DATA", context)]
        words += ["-o", run]
        if self.parameterAsBool(parameters, "RESUME", context):
            words.append("--resume")
        if not self.parameterAsBool(parameters, "REPORT", context):
            words.append("--no-report")
        self.call(words, feedback)
        return run_outputs(run)


class Retrain(EngineAlgorithm):
    """``terradapt train retrain``."""

    NAME, TITLE, GROUP = "retrain", "Retrain with corrections", GROUP
    TAGS = ("corrections", "fine-tune", "active learning", "labels")
    HELP = (
        "Lets a model learn from polygons or lines that you draw in QGIS where its map is wrong. "
        "Inside a correction its class counts; elsewhere the older labels, or what the model knew "
        "already, so that it forgets nothing. A few dozen small corrections are a good start.\n\n"
        "The class of a feature stands in a text field: the names of the model's classes, or new "
        "ones. 'New corrections layer' makes such a layer. Edits need not be saved.\n\n"
        "Give the images that the corrections lie on: as layers, or as the folder of training data "
        "with the older labels. Needs the full engine."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(model_parameter(title="Model to correct (checkpoint or a run's folder)"))
        self.addParameter(
            QgsProcessingParameterFeatureSource("CORRECTIONS", "Corrections", [VECTOR])
        )
        self.addParameter(
            QgsProcessingParameterField(
                "FIELD", "Field with the class", "class", parentLayerParameterName="CORRECTIONS"
            )
        )
        self.addParameter(
            QgsProcessingParameterMultipleLayers(
                "IMAGES", "Images under the corrections", RASTER, optional=True
            )
        )
        self.addParameter(
            QgsProcessingParameterFile(
                "DATA", "or the folder of training data", FOLDER, optional=True
            )
        )
        self.addParameter(
            QgsProcessingParameterNumber(
                "EPOCHS", "Epochs (as the recipe says when empty)", INTEGER, optional=True,
                minValue=1,
            )
        )  # fmt: skip
        for parameter in (
            QgsProcessingParameterNumber(
                "LINE_WIDTH", "Width of lines, metres (as the recipe says when empty)", DOUBLE,
                optional=True, minValue=0.01,
            ),
            QgsProcessingParameterString(
                "CHANGES", "Changes of the recipe (KEY=VALUE KEY=VALUE)", optional=True
            ),
        ):  # fmt: skip
            self.addParameter(advanced(parameter))
        self.addParameter(QgsProcessingParameterFolderDestination("RUN", "Folder of the new run"))
        _add_run_outputs(self)

    def processAlgorithm(self, parameters, context, feedback):
        """Retrain."""
        images = self.parameterAsLayerList(parameters, "IMAGES", context)
        data = self.path(parameters, "DATA", context)
        if bool(images) == bool(data):
            raise QgsProcessingException(
                "give either the images under the corrections, or the folder of training data"
            )
        source = self.parameterAsSource(parameters, "CORRECTIONS", context)
        if source is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, "CORRECTIONS"))
        if not source.featureCount():
            raise QgsProcessingException("the corrections have no feature. Draw some first")
        corrections = write_source(source, context, "corrections")
        if images:
            folder = os.path.dirname(QgsProcessingUtils.generateTempFilename("images"))
            data = lend_images(images, tempfile.mkdtemp(dir=folder))
        changes = [
            f"train.start={self.text(parameters, 'MODEL', context)}",
            f"data.corrections={corrections}",
            f"data.class_column={self.text(parameters, 'FIELD', context)}",
            *split_changes(self.text(parameters, "CHANGES", context)),
        ]
        if self.given(parameters, "EPOCHS"):
            changes.append(f"epochs={self.parameterAsInt(parameters, 'EPOCHS', context)}")
        if self.given(parameters, "LINE_WIDTH"):
            width = self.parameterAsDouble(parameters, "LINE_WIDTH", context)
            changes.append(f"data.line_width={width}")
        run = self.path(parameters, "RUN", context)
        self.call(["train", "retrain", *changes, "--data", data, "-o", run], feedback)
        return run_outputs(run)


def _add_run_outputs(algorithm):
    algorithm.addOutput(QgsProcessingOutputFile("CHECKPOINT", "Checkpoint"))
    algorithm.addOutput(QgsProcessingOutputHtml("REPORT_PAGE", "Report"))


def run_outputs(run):
    """Return the outputs of a run's folder."""
    report = os.path.join(run, "report.html")
    found = {"RUN": run, "CHECKPOINT": os.path.join(run, "checkpoint.safetensors")}
    return {**found, "REPORT_PAGE": report} if os.path.isfile(report) else found


def split_changes(text):
    """Return the words of ``KEY=VALUE KEY=VALUE``; a value may stand in quotation marks."""
    words, quote = [""], ""
    for letter in text:
        if letter in "\"'" and quote in ("", letter):
            quote = "" if quote else letter
        elif letter.isspace() and not quote:
            words.append("")
        else:
            words[-1] += letter
    return [word for word in words if word]
