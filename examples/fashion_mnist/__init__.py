"""The FedAvg paper's CNN on Fashion-MNIST, trained by five device processes that keep being killed."""
