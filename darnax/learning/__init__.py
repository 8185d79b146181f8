"""Learning: local rules, and the updates that follow from them."""

from darnax.learning.rules import hebbian as hebbian
from darnax.learning.rules import perceptron as perceptron
from darnax.learning.updates import local_updates as local_updates
