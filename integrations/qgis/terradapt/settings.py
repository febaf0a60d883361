"""What the plugin remembers, where QGIS keeps the settings of Processing."""

import os
from pathlib import Path

from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsSettings

from . import engine
from .process import environment

EXECUTABLE = "TERRADAPT_EXECUTABLE"
_HOME = "terradapt/"


def executable_setting():
    """Return the setting *terradapt executable*: Settings > Options > Processing > Providers."""
    return str(QgsSettings().value(f"Processing/Configuration/{EXECUTABLE}", "") or "")


def set_executable(path):
    """Change the setting *terradapt executable*; "" lets the plugin find it."""
    QgsSettings().setValue(f"Processing/Configuration/{EXECUTABLE}", path)
    try:
        from processing.core.ProcessingConfig import ProcessingConfig

        ProcessingConfig.setSettingValue(EXECUTABLE, path)
    except (ImportError, ValueError):  # no Processing, or no such file, which is told elsewhere
        pass


def remembered(name, default=""):
    """Return a text that the engine's dialog remembers."""
    return str(QgsSettings().value(_HOME + name, default) or default)


def remember(name, value):
    """Keep a text for the engine's dialog."""
    QgsSettings().setValue(_HOME + name, value)


def engine_folder():
    """Return where the button makes the engine."""
    return Path(remembered("folder") or engine.default_folder(os.environ))


def find_engine():
    """Return the program terradapt, or None."""
    return engine.find(executable_setting(), engine_folder(), os.environ)


def clean_environment():
    """Return the environment for programs that are not QGIS's."""
    inside = [QgsApplication.prefixPath(), os.environ.get("OSGEO4W_ROOT", "")]
    if os.name != "nt" and not QgsApplication.prefixPath().startswith("/Applications"):
        inside = []  # on Linux QGIS lies in /usr, where everything lies
    return environment(os.environ, inside=inside)


def proxy_environment():
    """Return QGIS's proxy (Settings > Options > Network) as variables for pip."""
    settings = QgsSettings()
    keys = {
        "enabled": "proxyEnabled",
        "type": "proxyType",
        "host": "proxyHost",
        "port": "proxyPort",
        "user": "proxyUser",
        "password": "proxyPassword",
    }
    values = {k: str(settings.value(f"proxy/{v}", "") or "") for k, v in keys.items()}
    values["enabled"] = values["enabled"].lower()
    excluded = [
        settings.value(f"proxy/{k}", []) or [] for k in ("noProxyUrls", "proxyExcludedUrls")
    ]
    texts = [e.split("|") if isinstance(e, str) else list(e) for e in excluded]
    values["excluded"] = ",".join(t for some in texts for t in some)
    authcfg = str(settings.value("proxy/authcfg", "") or "")
    if authcfg:
        config = QgsAuthMethodConfig()
        if QgsApplication.authManager().loadAuthenticationConfig(authcfg, config, True):
            values["user"] = config.config("username")
            values["password"] = config.config("password")
    return engine.proxy_environment(values)
