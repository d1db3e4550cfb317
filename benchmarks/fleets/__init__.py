"""What emulates the same fleet beside edgefl, each as a process of its own."""
