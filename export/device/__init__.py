"""What takes an exported model to a device: the operator check, and sample programs in C++, Kotlin and a browser."""
