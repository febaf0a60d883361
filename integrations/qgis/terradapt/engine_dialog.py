"""Plugins > terradapt > Engine...: which program is called, and a button that makes one."""

import os
import subprocess
from pathlib import Path

from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import QThread, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
)

from . import settings
from .engine import Plan, program_of, pythons
from .making import make

KINDS = (
    ("edge", "edge: predict with a model.onnx and vectorize; no torch"),
    ("full", "full: train, retrain and export too; with torch, gigabytes"),
)


class Maker(QThread):
    """Makes an engine while the dialog stays alive."""

    said = pyqtSignal(str)
    made = pyqtSignal(object)

    def __init__(self, plan, env, parent):
        super().__init__(parent)
        self.plan, self.env = plan, env
        self.cancelled = False

    def run(self):
        """Make it."""
        self.made.emit(make(self.plan, self.env, self.said.emit, lambda: self.cancelled))


class EngineDialog(QDialog):
    """The dialog."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.maker = None
        self.setWindowTitle("terradapt engine")
        self.resize(760, 640)
        layout = QVBoxLayout(self)
        self.found = QLabel()
        self.found.setWordWrap(True)
        layout.addWidget(self.found)
        layout.addWidget(self._program_box())
        layout.addWidget(self._maker_box())
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        layout.addWidget(self.log, 1)
        layout.addLayout(self._buttons())
        self._show_found()

    def _program_box(self):
        box = QGroupBox("Use a terradapt that is there")
        form = QFormLayout(box)
        self.program = QgsFileWidget()
        self.program.setFilePath(settings.executable_setting())
        self.program.fileChanged.connect(self._set_program)
        form.addRow("terradapt executable", self.program)
        return box

    def _maker_box(self):
        box = QGroupBox("Make one, apart from the Python of QGIS")
        form = QFormLayout(box)
        self.kind = QComboBox()
        for key, text in KINDS:
            self.kind.addItem(text, key)
        self.kind.setCurrentIndex(max(0, self.kind.findData(settings.remembered("kind", "edge"))))
        form.addRow("Kind", self.kind)
        self.source = QLineEdit(settings.remembered("source"))
        self.source.setPlaceholderText("from the index")
        wheel, folder = QPushButton("Wheel..."), QPushButton("Folder...")
        wheel.clicked.connect(self._choose_wheel)
        folder.clicked.connect(self._choose_folder)
        row = QHBoxLayout()
        for button in (wheel, folder):
            button.setAutoDefault(False)
        for widget in (self.source, wheel, folder):
            row.addWidget(widget)
        form.addRow("terradapt comes from", row)
        self.index = QLineEdit(settings.remembered("index"))
        self.index.setPlaceholderText("pip's own")
        form.addRow("Index address", self.index)
        self.offline = QCheckBox("All wheels are in the folder above: no connection at all")
        self.offline.setChecked(settings.remembered("offline") == "yes")
        form.addRow("", self.offline)
        self.folder = QgsFileWidget()
        self.folder.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.folder.setFilePath(str(settings.engine_folder()))
        form.addRow("Made in", self.folder)
        self.python = QComboBox()
        self.python.setEditable(True)
        self.python.addItem("")
        self.python.addItems([c[0] for c in pythons(os.environ) if len(c) == 1])
        self.python.lineEdit().setPlaceholderText("the first that is 3.11 or newer")
        form.addRow("Python", self.python)
        return box

    def _buttons(self):
        row = QHBoxLayout()
        self.make, self.stop, close = QPushButton("Make"), QPushButton("Stop"), QPushButton("Close")
        self.make.clicked.connect(self._make)
        self.stop.clicked.connect(self._stop)
        self.stop.setEnabled(False)
        close.clicked.connect(self.reject)
        row.addWidget(self.make)
        row.addWidget(self.stop)
        row.addStretch(1)
        row.addWidget(close)
        return row

    def plan(self):
        """Return what the fields say."""
        return Plan(
            folder=Path(self.folder.filePath() or settings.engine_folder()),
            python=self.python.currentText().strip(),
            kind=self.kind.currentData(),
            source=self.source.text().strip(),
            index=self.index.text().strip(),
            offline=self.offline.isChecked(),
        )

    def reject(self):
        """Close, but not while an engine is being made."""
        if self.maker is None:
            super().reject()
        else:
            self._stop()

    def _make(self):
        plan = self.plan()
        for name in ("kind", "source", "index"):
            settings.remember(name, getattr(plan, name))
        settings.remember("offline", "yes" if plan.offline else "")
        settings.remember("folder", str(plan.folder))
        self.log.clear()
        self.make.setEnabled(False)
        self.stop.setEnabled(True)
        env = {**settings.clean_environment(), **settings.proxy_environment()}
        self.maker = Maker(plan, env, self)
        self.maker.said.connect(self.log.appendPlainText)
        self.maker.made.connect(self._ended)
        self.maker.start()

    def _ended(self, made):
        self.maker.wait()
        self.maker = None
        self.make.setEnabled(True)
        self.stop.setEnabled(False)
        if made.good:
            program = str(program_of(Path(self.folder.filePath())))
            self.log.appendPlainText(f"\nThe engine is ready: {program}")
            self.program.setFilePath("")
            settings.set_executable("")
        else:
            self.log.appendPlainText(f"\n{made.what}\nWhat to do: {made.fix}")
        self._show_found()

    def _stop(self):
        if self.maker is not None:
            self.maker.cancelled = True
            self.log.appendPlainText("stopping...")

    def _set_program(self, path):
        settings.set_executable(path.strip())
        self._show_found()

    def _show_found(self):
        program = settings.find_engine()
        if program is None:
            self.found.setText("<b>No terradapt yet.</b> Choose its program, or make one.")
            return
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            done = subprocess.run(
                [program, "--version"], check=False, env=settings.clean_environment(), timeout=60,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                creationflags=flags,
            )  # fmt: skip
            told = done.stdout.decode("utf-8", "replace").strip().splitlines()[-1:]
            version = told[0] if done.returncode == 0 and told else "does not run"
        except (OSError, subprocess.TimeoutExpired) as error:
            version = f"does not run ({error})"
        self.found.setText(f"<b>{version}</b>, {program}")

    def _choose_wheel(self):
        from qgis.PyQt.QtWidgets import QFileDialog

        path, _ = QFileDialog.getOpenFileName(self, "Wheel", self.source.text(), "Wheels (*.whl)")
        self.source.setText(path or self.source.text())

    def _choose_folder(self):
        from qgis.PyQt.QtWidgets import QFileDialog

        path = QFileDialog.getExistingDirectory(
            self, "Folder of wheels, or the source of terradapt"
        )
        self.source.setText(path or self.source.text())
