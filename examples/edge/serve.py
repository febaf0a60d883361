"""A service: POST a picture, get its class raster (GeoTIFF) back.

python serve.py model.onnx 8000; curl --data-binary @scene.tif localhost:8000 -o map.tif
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import terradapt
from terradapt.errors import TerradaptError

LARGEST = 1 << 28  # bytes of a picture


class Maps(BaseHTTPRequestHandler):
    """Answers each POST with the map of its body."""

    def do_POST(self) -> None:
        """Map the picture in the body."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or not 0 < int(size) <= LARGEST:
            return self.send_error(413, f"send a picture of 1 to {LARGEST} bytes")
        with TemporaryDirectory() as folder:
            picture, result = Path(folder, "picture"), Path(folder, "map.tif")
            picture.write_bytes(self.rfile.read(int(size)))
            try:
                self.server.mapper.predict(picture, result)
            except TerradaptError as error:
                return self.send_error(400, error.message.replace(folder, ""), error.fix)
            self.send_response(200)
            self.send_header("Content-Type", "image/tiff")
            self.end_headers()
            self.wfile.write(result.read_bytes())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Maps)
    server.mapper = terradapt.load(sys.argv[1])
    print(f"maps at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
