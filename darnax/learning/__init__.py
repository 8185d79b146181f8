"""Learning: local rules, and the updates that follow from them."""

from darnax.learning.rules import anti_hebbian as anti_hebbian
from darnax.learning.rules import bcm as bcm
from darnax.learning.rules import covariance as covariance
from darnax.learning.rules import delta as delta
from darnax.learning.rules import hebbian as hebbian
from darnax.learning.rules import oja as oja
from darnax.learning.rules import perceptron as perceptron
from darnax.learning.updates import local_updates as local_updates
