/* The binary batches of CIFAR-10 and CIFAR-100: 32×32 RGB images with their labels.
 * Images come as N×32×32×3 uint8 (the files hold planes, they are interleaved here), labels as N
 * int64, counted from 0 as in the file. */
#ifndef TD_IO_CIFAR_H
#define TD_IO_CIFAR_H
#include "tensor/tensor.h"

td_status td_cifar10_read(const char *path, td_tensor **images, td_tensor **labels);
td_status td_cifar10_from_memory(const void *bytes, size_t n, const char *name, td_tensor **images,
                                 td_tensor **labels);
/* coarse: the 20 superclasses; fine: the 100 classes. */
td_status td_cifar100_read(const char *path, td_tensor **images, td_tensor **coarse,
                           td_tensor **fine);
td_status td_cifar100_from_memory(const void *bytes, size_t n, const char *name, td_tensor **images,
                                  td_tensor **coarse, td_tensor **fine);

#endif
