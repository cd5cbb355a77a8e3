"""The typefaces, from Debian packages (see README.md): those of examples and measurements, and others for tuning."""
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
# What stands in for each while the reader is trained or tuned, so that no measurement shows typefaces that it knows.
TUNING = {
    "b612": "opentype/cantarell/Cantarell-ExtraBold.otf",
    "b612mono": "truetype/firacode/FiraCode-Bold.ttf",
    "dejavu": "opentype/urw-base35/NimbusSansNarrow-Bold.otf",
    "lato": "opentype/inter/Inter-SemiBold.otf",
    "liberation": "opentype/urw-base35/NimbusSans-Bold.otf",
    "opensans": "truetype/noto/NotoSans-Bold.ttf",
    "roboto": "opentype/inter/Inter-Medium.otf",
    "robotocondensed": "opentype/urw-base35/NimbusSansNarrow-Regular.otf",
    "routed": "truetype/hack/Hack-Regular.ttf",
}
in_use = dict(FILES)


def tune():
    """Draws with the typefaces for tuning from here on."""
    in_use.update(TUNING)
    font.cache_clear()


@lru_cache(maxsize=256)
def font(name, size):
    """A typeface at a size in pixels."""
    return ImageFont.truetype(str(ROOT / in_use[name]), size)
