"""The typefaces, from Debian packages (see README.md)."""
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

ROOT = Path("/usr/share/fonts")
FILES = {
    "b612": "opentype/b612/B612-Bold.otf",
    "b612mono": "opentype/b612/B612Mono-Bold.otf",
    "dejavu": "truetype/dejavu/DejaVuSansCondensed-Bold.ttf",
    "lato": "truetype/lato/Lato-Semibold.ttf",
    "liberation": "truetype/liberation2/LiberationSans-Bold.ttf",
    "opensans": "truetype/open-sans/OpenSans-Semibold.ttf",
    "roboto": "truetype/roboto/unhinted/RobotoTTF/Roboto-Medium.ttf",
    "robotocondensed": "truetype/roboto/unhinted/RobotoCondensed-Regular.ttf",
    "routed": "truetype/routed-gothic/routed-gothic-wide.ttf",
}


@lru_cache(maxsize=256)
def font(name, size):
    """A typeface at a size in pixels."""
    return ImageFont.truetype(str(ROOT / FILES[name]), size)
