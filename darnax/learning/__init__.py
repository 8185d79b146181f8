"""Learning: local rules, the updates that follow from them, and training on data."""

from darnax.learning.backprop import BackpropLearning as BackpropLearning
from darnax.learning.backprop import squared_error as squared_error
from darnax.learning.callbacks import early_stopping as early_stopping
from darnax.learning.data import one_vs_all as one_vs_all
from darnax.learning.evaluate import evaluate as evaluate
from darnax.learning.evaluate import predict as predict
from darnax.learning.fit import fit as fit
from darnax.learning.history import History as History
from darnax.learning.loader import Images as Images
from darnax.learning.loader import load_idx as load_idx
from darnax.learning.loader import load_npz as load_npz
from darnax.learning.phases import Phase as Phase
from darnax.learning.phases import nudge as nudge
from darnax.learning.rules import anti_hebbian as anti_hebbian
from darnax.learning.rules import bcm as bcm
from darnax.learning.rules import covariance as covariance
from darnax.learning.rules import delta as delta
from darnax.learning.rules import hebbian as hebbian
from darnax.learning.rules import oja as oja
from darnax.learning.rules import perceptron as perceptron
from darnax.learning.teaching import ContrastiveLearning as ContrastiveLearning
from darnax.learning.teaching import DynamicalLearning as DynamicalLearning
from darnax.learning.teaching import Learning as Learning
from darnax.learning.teaching import LocalLearning as LocalLearning
from darnax.learning.updates import local_updates as local_updates
