"""What all algorithms share: they turn parameters into a command line and read what comes back."""

import os
import time

from qgis.core import QgsProcessingAlgorithm, QgsProcessingException, QgsProcessingParameterFile
from qgis.PyQt.QtGui import QIcon

from .. import remedies, settings
from ..enums import FILE
from ..events import Log, Phase
from ..process import run, shown

ICON = os.path.join(os.path.dirname(os.path.dirname(__file__)), "icon.svg")
TEXT_EVERY = 10.0  # s
MODELS = "Models (*.safetensors *.onnx);;All files (*)"


class EngineAlgorithm(QgsProcessingAlgorithm):
    """An algorithm that calls a verb of the engine.

    Class attributes:
        NAME: Its id.
        TITLE: What people read.
        GROUP: Heading in the toolbox.
        HELP: What it does.
        TAGS: Words that it is found by.
        GOES_ON: What to do after a stop.
    """

    NAME = TITLE = GROUP = HELP = ""
    GOES_ON = "Run it again from the start"
    TAGS = ()

    def createInstance(self):
        """Return a new one, as QGIS asks."""
        return type(self)()

    def name(self):
        """Return the id."""
        return self.NAME

    def displayName(self):
        """Return the title."""
        return self.TITLE

    def group(self):
        """Return the heading."""
        return self.GROUP

    def groupId(self):
        """Return the heading's id."""
        return self.GROUP.lower().replace(" ", "")

    def shortHelpString(self):
        """Return the help."""
        return self.HELP

    def tags(self):
        """Return words that it is found by."""
        return list(self.TAGS)

    def icon(self):
        """Return the plugin's icon."""
        return QIcon(ICON)

    def svgIconPath(self):
        """Return the plugin's icon for the modeler."""
        return ICON

    def canExecute(self):
        """Tell whether there is an engine."""
        if settings.find_engine():
            return True, ""
        given = os.environ.get("TERRADAPT_EXECUTABLE") or settings.executable_setting()
        if given:
            return False, f"no program at {given}: mend the setting 'terradapt executable'"
        return False, f"no terradapt yet: {remedies.ENGINE} makes one, or finds yours"

    def call(self, arguments, feedback, *, fails=True):
        """Run the engine with ``--progress json`` and return its outcome.

        Args:
            arguments: Verb and options; None among them are left out.
            feedback: Of the algorithm; its cancel asks the engine to stop.
            fails: A failure ends the algorithm.

        Raises:
            QgsProcessingException: There is no engine, or it fails and ``fails`` is true.
        """
        possible, why = self.canExecute()
        if not possible:
            raise QgsProcessingException(why)
        words = [str(a) for a in arguments if a is not None]
        command = [settings.find_engine(), *words, "--progress", "json"]
        feedback.pushCommandInfo(shown(command))
        told = {"name": None, "at": 0.0}

        def on_event(event):
            if isinstance(event, Phase):
                # QGIS keeps each text in its log: a phase's ends, and one now and then between.
                now, whole = time.monotonic(), event.percent == 100
                if event.name != told["name"] or whole or now - told["at"] >= TEXT_EVERY:
                    told.update(name=event.name, at=now)
                    feedback.setProgressText(str(event))
                if event.percent is not None:
                    feedback.setProgress(event.percent)
            elif isinstance(event, Log):
                if event.text.startswith("warning: "):
                    feedback.pushWarning(event.text)
                elif not event.text.startswith(("error: ", "fix: ")):
                    feedback.pushInfo(event.text)

        try:
            outcome = run(command, settings.clean_environment(), on_event, feedback.isCanceled)
        except OSError as error:
            raise QgsProcessingException(
                f"{command[0]}: cannot be started ({error}). Make the engine anew: "
                f"{remedies.ENGINE}"
            ) from error
        if outcome.stopped:
            raise QgsProcessingException(f"stopped. {self.GOES_ON}")
        if outcome.status and fails:
            self.fail(outcome)
        return outcome

    def fail(self, outcome):
        """End the algorithm with what is wrong and what to do about it.

        Raises:
            QgsProcessingException: Always.
        """
        what, fix = remedies.of_run(outcome, self.TITLE)
        raise QgsProcessingException(f"{what}\nWhat to do: {fix}" if fix else what)

    def text(self, parameters, name, context):
        """Return a parameter as text without blanks around it."""
        return self.parameterAsString(parameters, name, context).strip()

    def path(self, parameters, name, context):
        """Return a parameter as an absolute path; "" where it was not given.

        The engine runs in another folder than QGIS. An address on the hub stays as it is.
        """
        text = self.text(parameters, name, context)
        return text if not text or text.startswith("hf:") else os.path.abspath(text)

    def output(self, parameters, context):
        """Return the absolute path of the result layer, under which it is loaded too."""
        given = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        path = os.path.abspath(given)
        if path != given and context.willLoadLayerOnCompletion(given):
            waiting = context.layersToLoadOnCompletion()
            waiting[path] = waiting.pop(given)
            context.setLayersToLoadOnCompletion(waiting)
        return path

    def given(self, parameters, name):
        """Tell whether an optional parameter was given."""
        return parameters.get(name) not in (None, "")


def model_parameter(name="MODEL", title="Model (checkpoint, model.onnx, or a run's folder)"):
    """Return the parameter of a model's file."""
    return QgsProcessingParameterFile(name, title, FILE, fileFilter=MODELS)


def option(name, value):
    """Return an option with its value, or nothing where there is none."""
    return [] if value is None or value == "" else [name, value]
