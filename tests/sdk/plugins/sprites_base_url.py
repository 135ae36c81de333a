"""Sends the SDK, and so the plugin that uses it, to SPRITES_BASE_URL: neither has a setting for it."""
import os

import sprites

init = sprites.SpritesClient.__init__
init.__defaults__ = (os.environ["SPRITES_BASE_URL"], *init.__defaults__[1:])
