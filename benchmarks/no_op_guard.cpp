// A CUDA device that does nothing: with it, FakeTensorMode runs a model "on the GPU" with a torch that has none.
#include <c10/core/impl/DeviceGuardImplInterface.h>

C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>);
