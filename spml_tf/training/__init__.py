"""The Keras model that trains a network, and the parts that methods are made of."""
