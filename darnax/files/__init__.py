"""Files: pytrees saved by name, loaded without running code, and carried over to other networks."""

from darnax.files.carrying import Carryover as Carryover
from darnax.files.saving import carry as carry
from darnax.files.saving import load as load
from darnax.files.saving import load_facts as load_facts
from darnax.files.saving import save as save
