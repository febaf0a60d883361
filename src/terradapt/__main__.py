"""``python -m terradapt``, for launchers such as ``accelerate launch -m terradapt``."""

from terradapt.cli import main

if __name__ == "__main__":
    main()
