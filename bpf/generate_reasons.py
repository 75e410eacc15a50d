"""Write the names of drop reasons, in the order of the map's index, as a Python module."""

import re
import sys
from pathlib import Path

REASON = re.compile(r'X\((\w+), "([^"]*)"\)')

print('"""Why packets are dropped: generated from bpf/drops.h, in the order of the map `drops`."""\n')
print("DROP_REASONS: dict[str, str] = {")
for name, meaning in REASON.findall(Path(sys.argv[1]).read_text()):
    print(f'    "{name.lower()}": "{meaning}",')
print("}")
