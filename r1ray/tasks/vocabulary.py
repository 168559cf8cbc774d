"""Word lists of the synthetic tasks."""

from __future__ import annotations

_SHORT = """
and apple ask bag ball bank barn bell bird black blue boat bone book box bread brick bring brown bus cake call camp
card cat chair clock cloud coat cold corn count cow crow cup dance dark day deep desk dog door draw dream drum duck
dust eagle ear early earth egg eye farm fast field find fire fish five flag floor fog fork fox frog fruit game garden
gate glass goat gold grass green hand happy hat hen hill honey horse house ice ink iron island jam jar joy key king
kite lake lamp leaf lemon light line lion long lost map mark milk mill moon mouse music name nest new night nine north
nut oak ocean old onion open owl page paint paper path pear pen piano pig pine plant pond queen quiet rain read red
rice ring river road rock roof rope rose sail salt sand sea seed seven shell ship shoe silver sing sky sleep slow
small snow soap song soup spoon star step stone storm story sugar sun table tall tea tent three tiger time tower town
train tree under violin voice wagon walk wall warm water wave wheel white wind wing winter wolf wood word write year
yellow zebra
"""

_PLURALS = """
acrobats bakers beetles blorps bricks candles carpenters clocks cyclists dancers dentists dolphins farmers flutes
gardeners glimmers hats islanders jugglers kites lanterns lawyers mirrors moons ostriches painters pilots poets robots
sailors sculptors singers spiders squares teachers tigers trumpets wizards wugs zebras
"""

SHORT_WORDS = tuple(_SHORT.split())
PLURALS = tuple(_PLURALS.split())
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ines", "Jan", "Kira", "Leo", "Mia", "Nils", "Olga")
