"""Sampling: states of random units at a temperature, by annealing and by replica exchange."""

from darnax.sampling.annealing import anneal as anneal
from darnax.sampling.temperature import at_temperature as at_temperature
from darnax.sampling.tempering import Tempering as Tempering
from darnax.sampling.tempering import exchange as exchange
from darnax.sampling.tempering import temper as temper
