"""Run by the Python of an environment with pynq: what its own parser makes of hand-off files, as JSON.

Arguments: files. Output: a list with, of each, IPs, clocks, interrupt controllers and pins."""

import json
import sys
import warnings

warnings.simplefilter("ignore")

import pynq  # noqa: E402
from pynqmetadata.frontends import Metadata  # noqa: E402

if int(pynq.__version__.split(".")[0]) < 4:
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
else:
    from pynqmetadata.views.runtime import RuntimeMetadataParser


def described(path):
    p = RuntimeMetadataParser(Metadata(input=path))
    return {"ps": p.ps_name, "family": p.family_ps, "ips": p.ip_dict, "memories": p.mem_dict, "clocks": p.clock_dict,
            "controllers": p.interrupt_controllers, "pins": p.interrupt_pins}


print(json.dumps({"pynq": pynq.__version__, "files": [described(path) for path in sys.argv[1:]]}, default=repr))
